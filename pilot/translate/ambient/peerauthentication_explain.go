package ambient

// PeerAuthenticationsOf are the objects that say, in this order of precedence from the last, whether a workload takes plaintext: the
// mesh's, its namespace's and its own. Each may be nil. all are those of the namespace and of the root namespace.
func PeerAuthenticationsOf(mesh Mesh, all []*PeerAuthentication, namespace string, labels map[string]string) (root, ns, own *PeerAuthentication) {
	return levels(mesh, all, namespace, labels)
}
