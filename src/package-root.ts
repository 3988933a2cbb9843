import { existsSync, readFileSync } from 'node:fs'

/**
 * The folder of this package, by the URL of a module in its `src` or `dist`, and the version in its package.json.
 *
 * @throws Error where a bundler has taken the code elsewhere: what is there in place of the migrations may be another program's
 */
export function findPackage (moduleUrl: string): { root: URL, version: string } {
  try {
    const root = new URL('../', moduleUrl)
    const { version } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { version: string }
    if (existsSync(new URL('migrations/0001-api-keys.sql', root))) return { root, version }
  } catch {
    // No URL, in a bundle for require(), or no package.json there.
  }
  throw new Error('sipher-sessions was bundled into another program, without its migrations. Leave it out of the bundle: esbuild --external:sipher-sessions, or "external" of your bundler.')
}

export const { root: packageRoot, version } = findPackage(import.meta.url)
