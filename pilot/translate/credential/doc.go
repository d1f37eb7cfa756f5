// Package credential says which Secrets gateways present and trust, who may have them, and how they look to a proxy (SDS). It is
// pure: it neither reads Secrets nor asks anybody.
//
// A credential with a private key reaches a proxy only by one of two ways. A classic Gateway names a Secret (kubernetes://NAME) of the namespace that
// its pods run in, and their service account may read it. A Gateway of the Gateway API names one of its own namespace, or of one
// whose ReferenceGrant allows it (kubernetes-gateway://NAMESPACE/NAME), and a pod of that Gateway has the service account.
//
// The authorities that a BackendTLSPolicy names are in objects of its own namespace, and every proxy that connects to its target is given
// them: they are certificates, which every handshake shows, and never a key.
package credential
