import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import t from 'tap'

// Each by itself: what one host declares of its sessions is not true for the other.
for (const host of ['preset', 'host']) {
  t.test(`the built package's types are right for test/types/${host}.ts`, async t => {
    const tsc = join(dirname(createRequire(import.meta.url).resolve('typescript/package.json')), 'bin', 'tsc')
    const { status, stdout } = spawnSync(process.execPath, [
      tsc, '--noEmit', '--strict', '--target', 'es2023', '--module', 'nodenext', '--types', 'node', '--ignoreConfig',
      join('test', 'types', `${host}.ts`)
    ], { encoding: 'utf8', env: { PATH: process.env.PATH } })
    t.equal(stdout, '')
    t.equal(status, 0)
  })
}
