import pg from 'pg'
import { validationError, type ApiError } from '../errors.js'

/** SQL of a time as milliseconds since the epoch, whole ones, as a number: int8 would arrive as text. */
export const milliseconds = (time: string) => `floor(extract(epoch from ${time}) * 1000)::float8`

/** Whether a value itself cannot be stored, such as text with a NUL or half a surrogate pair: SQLSTATE class 22. */
export function isUnstorable (error: unknown): boolean {
  return error instanceof pg.DatabaseError && error.code?.startsWith('22') === true
}

/** Turns the refusal of a value that cannot be stored into the caller's error. */
export async function rejectUnstorable<T> (field: string, statement: Promise<T>): Promise<T> {
  try {
    return await statement
  } catch (error) {
    throw isUnstorable(error) ? unstorable(field) : error
  }
}

export function unstorable (field: string): ApiError {
  return validationError('body', [{ field, reason: 'holds a character that cannot be stored (NUL or half a surrogate pair)' }])
}
