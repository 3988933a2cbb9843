// The examples run the built package, as its users do. Builds it where that is missing or older than its source.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const built = join(root, 'dist', '.tsbuildinfo')
const changed = readdirSync(join(root, 'src'), { recursive: true }).map(name => statSync(join(root, 'src', name)).mtimeMs)

if (!existsSync(built) || statSync(built).mtimeMs < Math.max(...changed)) {
  execFileSync(process.execPath, ['node_modules/typescript/bin/tsc', '--project', 'tsconfig.build.json'], { cwd: root, stdio: 'inherit' })
}
