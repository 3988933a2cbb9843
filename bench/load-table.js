// How the benchmarks of the load print what they compare: `--json` as one line of JSON at the end, else a table row by row.
const columns = [['path', 8], ['against', 13], ['conns', 7], ['ratio', 20], ['goal', 7], ['requests/s', 16], ['p50 ms', 15], ['p99 ms', 15], ['µs of CPU', 13], ['statements', 0]]

/** A printer of results, of which some have a goal; `end` answers the exit code, 1 where one was missed. */
export function createTable (json) {
  const results = []
  return {
    add (result) {
      if (!json && results.length === 0) console.log(columns.map(([name, width]) => name.padEnd(width)).join(''))
      results.push({ ...result, met: result.goal === undefined || result.ratio >= result.goal })
      if (!json) console.log(row(results.at(-1)))
    },
    end () {
      const missed = results.filter(({ met }) => !met)
      if (json) console.log(JSON.stringify(results))
      else if (missed.length > 0) console.log(`Missed: ${missed.map(({ path, against, connections }) => `${path} against ${against} at ${connections}`).join(', ')}`)
      return missed.length > 0 ? 1 : 0
    }
  }
}

function row ({ path, against, connections, ratio, lowest, highest, goal, met, first, second }) {
  const pair = (key, digits) => `${first[key].toFixed(digits)} / ${second[key].toFixed(digits)}`
  const cells = [
    path, against, String(connections), `${ratio.toFixed(2)} (${lowest.toFixed(2)}-${highest.toFixed(2)})`, goal === undefined ? '' : `${goal.toFixed(2)}${met ? '' : ' !'}`,
    pair('rate', 0), pair('p50', 2), pair('p99', 2), pair('cpu', 0), pair('statements', 3)
  ]
  return cells.map((cell, i) => cell.padEnd(columns[i][1])).join('')
}
