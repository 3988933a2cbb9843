/** A media type without its parameters. */
export function essenceOf (mediaType: string): string {
  return mediaType.split(';', 1)[0]!.trim().toLowerCase()
}

/** Whether a media type is JSON: `application/json`, those that end in `+json`, and `text/json`, as servers of .NET take it. */
export function isJson (mediaType: string): boolean {
  return /^(?:application|text)\/json$|\+json$/.test(essenceOf(mediaType))
}

/** Whether a media type is that of forms, whose parameters are written as those of a query string. */
export function isForm (mediaType: string): boolean {
  return essenceOf(mediaType) === 'application/x-www-form-urlencoded'
}

/** Whether a media type is in a range, such as `text/*`, or `application/*+json`, which documents of .NET have. */
export function isInRange (mediaType: string, range: string): boolean {
  const [essence, wanted] = [essenceOf(mediaType), essenceOf(range)]
  const [beginning, end = ''] = wanted.split('*', 2) as [string, string?]
  return wanted === '*/*' || essence === wanted || (/^[^*/]+\/\*(?:\+[^*]+)?$/.test(wanted) && essence.startsWith(beginning) && essence.endsWith(end))
}
