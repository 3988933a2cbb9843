import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t from 'tap'
import { findPackage, packageRoot, version } from '../src/package-root.js'

t.test('the package is found by its own manifest', async t => {
  t.strictSame(findPackage(pathToFileURL('dist/index.js').href), { root: packageRoot, version })
  t.match(version, /^\d+\.\d+\.\d+/)
})

t.test('bundled into another program it says so, rather than take the migrations that are there for its own', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'sipher-bundle-'))
  t.teardown(() => { rmSync(folder, { recursive: true }) })
  mkdirSync(join(folder, 'dist'))
  const bundle = pathToFileURL(join(folder, 'dist', 'bundle.js')).href
  const told = { message: 'sipher-sessions was bundled into another program, without its migrations. Leave it out of the bundle: esbuild --external:sipher-sessions, or "external" of your bundler.' }
  t.throws(() => findPackage(bundle), told)
  writeFileSync(join(folder, 'package.json'), '{"name":"host","version":"1.0.0"}')
  mkdirSync(join(folder, 'migrations'))
  writeFileSync(join(folder, 'migrations', '0001-orders.sql'), 'drop table orders')
  t.throws(() => findPackage(bundle), told)
  // What import.meta.url is in a bundle for require().
  t.throws(() => findPackage(undefined as never), told)
})
