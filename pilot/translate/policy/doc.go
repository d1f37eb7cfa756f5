// Package policy translates AuthorizationPolicies, RequestAuthentications and the mesh-wide settings of security and access
// logging into what a waypoint or a gateway enforces: filters of stock Envoy. Everything in it is a pure function of its
// arguments.
//
// Who uses what:
//
//   - [Attached] and [AttachedRequestAuthentications] select the objects of one filter chain;
//   - [HTTPFilters] and [NetworkFilters] translate those, in the order in which they must stand in the chain, before CORS,
//     fault injection and the router;
//   - [JWKSSources] names the documents that [Input.JWKS] will be asked for;
//   - [AccessLogs] and [NormalizePath] complete the HTTP connection manager;
//   - [AuthorizationPolicyConditions] and [RequestAuthenticationConditions] say what became of an object.
//
// What cannot be expressed is never dropped silently, and never makes a policy more permissive: an ALLOW rule with such a part
// is left out, a DENY rule is enforced without it, a token whose keys are not known is refused. The conditions say so.
package policy
