package gateway

// unresolvedRef is a reference that cannot be followed, with the reason that the condition ResolvedRefs gives.
type unresolvedRef struct {
	reason, message string
}
