/** What percent-encoded text stands for; text that is encoded wrongly stands for itself. */
export function decode (text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
