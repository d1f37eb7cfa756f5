package policy

// Backend is the service of an extension provider.
type Backend struct {
	// Cluster is its name among the proxy's, Host the service's.
	Cluster, Host string
	// HTTP2 is whether its port is declared to speak it.
	HTTP2 bool
}

// FindService finds the service that an extension provider names as [namespace/]host, by its port, as a proxy sees it. The error names
// the field that is wrong.
type FindService func(service string, port uint32) (Backend, error)
