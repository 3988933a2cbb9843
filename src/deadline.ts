/**
 * Calls back when a time has passed, in milliseconds, unless what is returned is called before.
 *
 * A process that has stood still, on a busy machine or while garbage was collected, finds its timers due before it has read
 * what came meanwhile. What came in time is not to be given up for it, so that is read first.
 */
export function setDeadline (callback: () => void, ms: number): () => void {
  let immediate: NodeJS.Immediate | undefined
  // Node runs timers, then reads sockets, then runs immediates.
  const timer = setTimeout(() => { immediate = setImmediate(callback) }, ms)
  return () => {
    clearTimeout(timer)
    clearImmediate(immediate)
  }
}
