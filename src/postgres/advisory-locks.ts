/**
 * The keys of the advisory locks that are taken in Postgres. Each is one lock for all releases, so that instances of two of them
 * keep out of each other's way while they are replaced.
 */
export const advisoryLocks = {
  /** Of who migrates. */
  migration: 7_315_402_236,
  /** Of the process that the embedded PostgreSQL belongs to. */
  embeddedPostgres: 7_315_402_237,
  /** Of who removes what has expired. */
  sweep: 7_315_402_238
} as const
