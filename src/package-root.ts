import { readFileSync } from 'node:fs'

/**
 * The folder of this package, by the URL of a module in its `src` or `dist`, and the version in its package.json.
 *
 * @throws Error where a bundler has taken the code elsewhere: what is there in place of the migrations may be another program's
 */
export function findPackage (moduleUrl: string): { root: URL, version: string } {
  let name: unknown
  try {
    const root = new URL('../', moduleUrl)
    const manifest = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { name: string, version: string }
    if (manifest.name === 'sipher-sessions') return { root, version: manifest.version }
    name = manifest.name
  } catch {
    // No URL, in a bundle for require(), or no package.json there.
  }
  throw new Error(`sipher-sessions was bundled into ${name === undefined ? 'another program' : JSON.stringify(name)}, without its migrations. Leave it out of the bundle: esbuild --external:sipher-sessions, or "external" of your bundler.`)
}

export const { root: packageRoot, version } = findPackage(import.meta.url)
