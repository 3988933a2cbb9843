import { ApiError } from './errors.js'

export interface BatchOptions {
  /**
   * Items of one batch at most: a statement stays short enough to be planned and answered quickly, whatever the load.
   * @default 500
   */
  maxSize?: number
  /**
   * As many items are sent at once, without waiting for the turn of the event loop to end: the database begins while the
   * others are still being read.
   * @default 32
   */
  eagerSize?: number
  /**
   * How long what comes waits for the batch before it, in milliseconds. The next batch is then the larger: the more load,
   * the fewer statements per request, and two of one kind would mostly wait for each other's rows. One that takes longer
   * leaves the others their way.
   * @default 5
   */
  patienceMs?: number
  /**
   * Batches under way at the same time, of which all but the last have taken longer than `patienceMs`.
   * @default 3
   */
  maxInFlight?: number
  /**
   * Items that may wait. What comes beyond is refused at once with `SERVICE_UNAVAILABLE`: it would be answered too late
   * anyway, and would only make the others wait longer.
   * @default 5000
   */
  maxWaiting?: number
  /**
   * How long an item may wait for its batch, in milliseconds; past that it is refused like those that find the queue
   * full. What a batch then does takes its own time.
   * @default 400
   */
  maxWaitMs?: number | undefined
  /** Whether an error may be one item's fault. Then the batch is halved and tried again, until only that one fails. */
  isOneItemsFault?: (error: unknown) => boolean
}

interface Waiting<Item, Result> {
  item: Item
  /** When it was asked for, by `performance.now()`. */
  since: number
  resolve: (result: Result) => void
  reject: (error: unknown) => void
}

/**
 * Collects what is asked for in one turn of the event loop, and while the batch before it is under way, and does it at
 * once. Nothing is kept: each call gets an answer that was read after the call was made.
 *
 * @param run does a batch, and resolves with one result for each item, in their order; `since` is when the first of them
 * was asked for, by `performance.now()`
 * @returns a function that does one item
 */
export function createBatch<Item, Result> (run: (items: Item[], since: number) => Promise<readonly Result[]>, options: BatchOptions = {}): (item: Item) => Promise<Result> {
  const { maxSize = 500, eagerSize = 32, patienceMs = 5, maxInFlight = 3, maxWaiting = 5000, maxWaitMs = 400, isOneItemsFault } = options
  const waiting: Waiting<Item, Result>[] = []
  let inFlight = 0
  /** The latest batch, while it may still be waited for. */
  let awaited: { since: number, patience?: NodeJS.Timeout } | undefined
  let scheduled = false

  function schedule (): void {
    if (waiting.length === 0) return
    if (awaited) {
      if (awaited.patience) return
      // Only where something waits: a lone request need not pay for a timer.
      const leftMs = awaited.since + patienceMs - performance.now()
      if (leftMs > 0) awaited.patience = setTimeout(endPatience, leftMs)
      else endPatience()
    } else if (waiting.length >= eagerSize) {
      dispatch()
    } else if (!scheduled && inFlight < maxInFlight) {
      // Not a microtask: it would end the batch with the current callback, in which there is one request. setImmediate
      // comes after all sockets that were readable have been read.
      scheduled = true
      setImmediate(() => {
        scheduled = false
        dispatch()
      })
    }
  }

  function dispatch (): void {
    if (awaited || inFlight === maxInFlight) return
    refuseLate()
    if (waiting.length === 0) return
    const batch = waiting.splice(0, maxSize)
    const latest = awaited = { since: performance.now() }
    inFlight++
    void send(batch, () => {
      inFlight--
      if (awaited === latest) endPatience()
      else schedule()
    })
    schedule()
  }

  function endPatience (): void {
    clearTimeout(awaited?.patience)
    awaited = undefined
    schedule()
  }

  /** While every batch was slow nobody could be served; who has waited too long gets the answer now. */
  function refuseLate (): void {
    const oldest = performance.now() - maxWaitMs
    while (waiting.length > 0 && waiting[0]!.since < oldest) waiting.shift()!.reject(overloaded())
  }

  /** @param onEnd called before the results are handed out, which takes a while in which the next batch can be under way */
  async function send (batch: Waiting<Item, Result>[], onEnd: () => void): Promise<void> {
    let results: readonly Result[]
    try {
      results = await run(batch.map(({ item }) => item), batch[0]!.since)
    } catch (error) {
      if (batch.length > 1 && isOneItemsFault?.(error)) {
        const half = batch.length >> 1
        await send(batch.slice(0, half), () => {})
        await send(batch.slice(half), onEnd)
      } else {
        onEnd()
        for (const { reject } of batch) reject(error)
      }
      return
    }
    onEnd()
    for (let i = 0; i < batch.length; i++) batch[i]!.resolve(results[i]!)
  }

  return item => new Promise((resolve, reject) => {
    if (waiting.length >= maxWaiting) {
      reject(overloaded())
      return
    }
    waiting.push({ item, since: performance.now(), resolve, reject })
    schedule()
  })
}

function overloaded (): ApiError {
  return new ApiError('SERVICE_UNAVAILABLE', { message: 'The service has more requests than it can serve at the moment. Try again in 1 s.' })
}
