import { ApiError } from './errors.js'

export interface BatchOptions {
  /**
   * Items of one batch at most: a statement stays short enough to be planned and answered quickly, whatever the load.
   * @default 500
   */
  maxSize?: number
  /**
   * Batches under way at the same time. While all are, what comes waits for the next batch, which is then the larger:
   * the more load, the fewer statements per request. One that is slow leaves the others their way.
   * @default 3
   */
  maxInFlight?: number
  /**
   * Items that may wait. What comes beyond is refused at once with `SERVICE_UNAVAILABLE`: it would be answered too late
   * anyway, and would only make the others wait longer.
   * @default 5000
   */
  maxWaiting?: number
  /** Whether an error may be one item's fault. Then the batch is halved and tried again, until only that one fails. */
  isOneItemsFault?: (error: unknown) => boolean
}

interface Waiting<Item, Result> {
  item: Item
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

/**
 * Collects what is asked for in one turn of the event loop, and while earlier batches are under way, and does it at
 * once. Nothing is kept: each call gets an answer that was read after the call was made.
 *
 * @param run does a batch, and resolves with one result for each item, in their order
 * @returns a function that does one item
 */
export function createBatch<Item, Result> (run: (items: Item[]) => Promise<readonly Result[]>, options: BatchOptions = {}): (item: Item) => Promise<Result> {
  const { maxSize = 500, maxInFlight = 3, maxWaiting = 5000, isOneItemsFault } = options
  const waiting: Waiting<Item, Result>[] = []
  let inFlight = 0
  let scheduled = false

  // Not a microtask: it would end the batch with the current callback, in which there is one request. setImmediate
  // comes after all sockets that were readable have been read.
  function schedule (): void {
    if (scheduled || waiting.length === 0 || inFlight === maxInFlight) return
    scheduled = true
    setImmediate(dispatch)
  }

  function dispatch (): void {
    scheduled = false
    inFlight++
    void send(waiting.splice(0, maxSize)).finally(() => {
      inFlight--
      schedule()
    })
    schedule()
  }

  async function send (batch: Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await run(batch.map(({ item }) => item))
      for (const [i, { resolve }] of batch.entries()) resolve(results[i]!)
    } catch (error) {
      if (batch.length > 1 && isOneItemsFault?.(error)) {
        const half = batch.length >> 1
        await send(batch.slice(0, half))
        await send(batch.slice(half))
      } else {
        for (const { reject } of batch) reject(error)
      }
    }
  }

  return item => new Promise((resolve, reject) => {
    if (waiting.length >= maxWaiting) {
      reject(new ApiError('SERVICE_UNAVAILABLE', { message: 'The service has more requests than it can serve at the moment. Try again in 1 s.', headers: { 'retry-after': '1' } }))
      return
    }
    waiting.push({ item, resolve, reject })
    schedule()
  })
}
