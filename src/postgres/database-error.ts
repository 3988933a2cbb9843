/** What the driver throws where Postgres has refused a statement or a connection. */
export interface DatabaseError extends Error {
  /** The SQLSTATE; a pooler's own errors may have none. */
  code?: string
  severity: string
}

/** Told by its severity, not by its class: a pool that a host gives may be of another copy of the driver. */
export function isDatabaseError (error: unknown): error is DatabaseError {
  return error instanceof Error && typeof (error as Partial<DatabaseError>).severity === 'string'
}
