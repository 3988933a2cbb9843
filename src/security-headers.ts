import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import helmet from 'helmet'

/**
 * The headers that keep browsers from misusing answers that are data: no page is to be made of them. They are the same
 * for every answer, so helmet is asked once, not for each; and each costs every answer, so those are left out that only
 * concern pages, or browsers that are gone.
 */
export function securityHeaders (): Record<string, string> {
  const request = new IncomingMessage(new Socket())
  const response = new ServerResponse(request)
  helmet({
    contentSecurityPolicy: { useDefaults: false, directives: { 'default-src': ["'none'"], 'frame-ancestors': ["'none'"] } },
    // Whether other names of the operator's domain can do with HTTPS alone is not for this service to say.
    strictTransportSecurity: { maxAge: 31_536_000, includeSubDomains: false },
    crossOriginOpenerPolicy: false,
    originAgentCluster: false,
    xDnsPrefetchControl: false,
    xDownloadOptions: false,
    xPermittedCrossDomainPolicies: false,
    xXssProtection: false
  })(request, response, () => {})
  // An object of its own: Node's has no prototype, and to go through such a one for each answer takes longer.
  return { ...response.getHeaders() as Record<string, string> }
}
