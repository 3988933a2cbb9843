// For what would outlive a test or a benchmark: above all PostgreSQL, which no Ctrl-C in a terminal reaches, and its directory.
const pending = new Set()
let ending = false

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, endBy)

/**
 * Has something done before the process ends, be it by a signal; then what was registered last is done first.
 *
 * @returns does it, if it has not been done; resolves once it is
 */
export function beforeExit (work) {
  let done
  async function once () {
    try {
      await work()
    } finally {
      pending.delete(finish)
    }
  }
  function finish () {
    done ??= once()
    return done
  }
  pending.add(finish)
  return finish
}

/** Whether a signal is ending the process: what has not begun by then is not to begin. */
export function isEnding () {
  return ending
}

async function endBy (signal) {
  if (ending) return
  ending = true
  // What is still running finds that its PostgreSQL is gone, and need not say so.
  process.on('uncaughtException', () => {})
  for (const finish of [...pending].reverse()) await finish().catch(console.error)
  process.removeListener(signal, endBy)
  process.kill(process.pid, signal)
}
