import fs from 'node:fs'
import type { DestinationStream } from 'pino'

/** How long lines are gathered before they are written, in milliseconds. */
const gatherMs = 10
/**
 * How long until what could not be written, because its reader has yet to read, is tried again, in milliseconds: at first, and at
 * most, as it is twice as long each time. A pipe takes 64 KiB, so that a long wait for each would not keep up with a log.
 */
const retryMs = 5
const maxRetryMs = 80
/** How much is kept until it can be written at most, in characters. What comes beyond is lost. */
const maxKept = 16 * 1024 * 1024
/** How long a process that exits waits for a reader that reads nothing, and how often it looks, in milliseconds. */
const exitMs = 2_000
const exitRetryMs = 5

/** Standard output, where lines are gathered. */
interface StandardOutput extends DestinationStream {
  /**
   * To be waited for before the process exits: resolves once no write is under way, as what that does not take would be lost. None is
   * begun from then on, and what comes later is written when the process exits.
   */
  finish (): Promise<void>
}

let output: StandardOutput | undefined

/**
 * Where the log goes by default: standard output, in one write for the lines of 10 ms. A write is done by a thread, which keeps
 * the event loop from waiting for whoever reads the log; to wake the thread for each would cost a fifth of a request's processor
 * time. What is left when the process exits is written then.
 *
 * What cannot be written, to a full disk or a terminal that is gone, is lost, and no reason to stop serving: pino's own
 * destination makes an error of it that ends the process, which then tries to write for ever.
 */
export function standardOutput (): StandardOutput {
  if (output) return output
  let lines = ''
  let left = Buffer.alloc(0)
  let isWriting = false
  let isGathering = false
  let isWaiting = false
  let waitMs = retryMs
  let isFinishing = false
  let finished = () => {}

  function flush (): void {
    if (isWriting || isWaiting || isFinishing) return
    if (left.length === 0) {
      if (lines === '') return
      left = Buffer.from(lines)
      lines = ''
    }
    isWriting = true
    fs.write(1, left, (error, written) => {
      isWriting = false
      finished()
      if (error?.code === 'EAGAIN') {
        isWaiting = true
        setTimeout(retry, waitMs)
        waitMs = Math.min(2 * waitMs, maxRetryMs)
        return
      }
      waitMs = retryMs
      left = left.subarray(error ? left.length : written)
      // What came meanwhile is gathered for its 10 ms as well: its timer writes it, unless it has been here already.
      if (left.length > 0 || !isGathering) flush()
    })
  }

  function retry (): void {
    isWaiting = false
    flush()
  }

  function gathered (): void {
    isGathering = false
    flush()
  }

  process.on('exit', () => {
    // What is being written is its thread's, unless the process has waited for it.
    let rest = Buffer.concat([isWriting ? Buffer.alloc(0) : left, Buffer.from(lines)])
    let progressed = performance.now()
    while (rest.length > 0 && performance.now() < progressed + exitMs) {
      try {
        rest = rest.subarray(fs.writeSync(1, rest))
        progressed = performance.now()
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, exitRetryMs)
      }
    }
  })
  output = {
    write (line) {
      if (!isGathering) {
        isGathering = true
        // Nothing is kept alive for it.
        setTimeout(gathered, gatherMs).unref()
      }
      if (lines.length < maxKept) lines += line
    },
    async finish () {
      isFinishing = true
      if (isWriting) await new Promise<void>(resolve => { finished = resolve })
    }
  }
  return output
}
