// Package ca is the mesh's certificate authority and its door.
//
//   - [Authority] signs: with a root that it made itself and keeps in a [Store], or with what an operator plugged in.
//   - [Server] is the CSR service. It asks its [Authenticator]s who calls, and the [NodeAuthorizer] whether a node
//     proxy may have the certificate of somebody else.
//
// Names come from who the caller is, never from the request: the request only brings a public key.
package ca
