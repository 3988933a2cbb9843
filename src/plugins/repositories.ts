import type DataLoader from 'dataloader'
import pg from 'pg'
import { validationError, type ApiError } from '../errors.js'

/**
 * Makes a DataLoader send the loads of one turn of the event loop as one statement, and keep nothing.
 *
 * DataLoader's own schedule ends with the current callback, in which there is one request; `setImmediate` comes after
 * all sockets that were readable have been read.
 */
export const oneStatementPerTick = {
  cache: false,
  batchScheduleFn: (dispatch: () => void) => { setImmediate(dispatch) },
  // One statement stays short enough to be planned and answered quickly, whatever the load.
  maxBatchSize: 500
} satisfies DataLoader.Options<unknown, unknown>

/** SQLSTATE class 22: the value itself cannot be stored, such as text with a NUL or half a surrogate pair. */
export async function rejectUnstorable<T> (field: string, statement: Promise<T>): Promise<T> {
  try {
    return await statement
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code?.startsWith('22')) {
      throw unstorable(field)
    }
    throw error
  }
}

export function unstorable (field: string): ApiError {
  return validationError('body', [{ field, reason: 'holds a character that cannot be stored (NUL or half a surrogate pair)' }])
}
