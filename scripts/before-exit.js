// For what would outlive a test or a benchmark: above all PostgreSQL, which no Ctrl-C in a terminal reaches, and its directory.
const pending = new Set()
let ending = false

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, endBy)
process.on('uncaughtException', endByError)

/**
 * Has something done before the process ends, be it by a signal or an error that nobody has caught; then what was registered last
 * is done first.
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

/** Whether a signal or an error is ending the process: what has not begun by then is not to begin. */
export function isEnding () {
  return ending
}

async function endBy (signal) {
  if (ending) return
  await finishAll()
  process.removeListener(signal, endBy)
  process.kill(process.pid, signal)
}

/** What is still running while the process ends finds that its PostgreSQL is gone, and need not say so. */
async function endByError (error) {
  if (ending) return
  console.error(error)
  await finishAll()
  process.exit(1)
}

async function finishAll () {
  ending = true
  for (const finish of [...pending].reverse()) await finish().catch(console.error)
}
