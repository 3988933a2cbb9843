// Memory for PostgreSQL in pages of 2 MB rather than 4 kB, as its manual advises for shared buffers of several gigabytes: each
// of its processes has to map every page that it touches for the first time, and the processor finds the address of one among
// a million more slowly. An operator reserves them once; a benchmark for as long as it runs, where it may.
import { readFileSync, writeFileSync } from 'node:fs'
import { freemem } from 'node:os'

const setting = '/proc/sys/vm/nr_hugepages'

/**
 * Reserves what of so many pages is not reserved and free already: on Linux, as root, and where it leaves half of the free
 * memory to others.
 *
 * @returns gives back what was reserved; null where there are not as many
 */
export function reserveHugePages (count) {
  try {
    const missing = count - free()
    if (missing > 0) {
      if (missing * read('Hugepagesize') * 1024 > freemem() / 2) return null
      change(missing)
    }
    const giveBack = () => { if (missing > 0) change(-missing) }
    // The system reserves fewer where memory is in pieces.
    if (free() >= count) return giveBack
    giveBack()
  } catch (error) {
    if (!['EACCES', 'EPERM', 'EROFS', 'ENOENT'].includes(error.code)) throw error
  }
  return null
}

function change (by) {
  writeFileSync(setting, String(Number(readFileSync(setting, 'utf8')) + by))
}

function free () {
  return read('HugePages_Free') - read('HugePages_Rsvd')
}

/** One of the system's figures on memory; 0 where it has none. */
function read (name) {
  return Number(new RegExp(`^${name}: *(\\d+)`, 'm').exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0)
}
