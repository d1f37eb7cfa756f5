package dns

import "strings"

// candidate is one host name that a query may stand for.
type candidate struct {
	// host to look up, without a trailing dot.
	host string
	// stripped is what remained of the query when a search suffix was cut off it; empty when nothing was cut.
	stripped string
}

// candidates lists what a client of namespace may mean by name, in the order in which they are tried: the name itself,
// its Kubernetes expansions, and then, for each search suffix that ends it, the name without that suffix and the
// expansions of that. domain is the cluster's, such as "cluster.local". Names are lower case without a trailing dot.
func candidates(name, namespace, domain string) []candidate {
	out := appendExpansions(nil, name, "", namespace, domain)
	for _, suffix := range []string{namespace + ".svc." + domain, "svc." + domain, domain} {
		if stripped, ok := strings.CutSuffix(name, "."+suffix); ok && stripped != "" {
			out = appendExpansions(out, stripped, stripped, namespace, domain)
		}
	}
	return out
}

// appendExpansions adds name and the longer names that it may abbreviate in Kubernetes.
func appendExpansions(out []candidate, name, stripped, namespace, domain string) []candidate {
	add := func(host string) { out = append(out, candidate{host: host, stripped: stripped}) }
	add(name)
	endsInSvc := strings.HasSuffix(name, ".svc")
	switch strings.Count(name, ".") + 1 {
	case 1:
		add(name + "." + namespace + ".svc." + domain)
	case 2:
		add(name + ".svc." + domain)
		add(name + "." + namespace + ".svc." + domain)
	case 3:
		if endsInSvc {
			add(name + "." + domain)
		}
		add(name + ".svc." + domain)
	case 4:
		if endsInSvc {
			add(name + "." + domain)
		}
	}
	return out
}

// wildcards lists the wildcard names that cover host, the closest first: *.b.c and *.c for a.b.c.
func wildcards(host string) []string {
	var out []string
	for {
		_, parent, ok := strings.Cut(host, ".")
		if !ok {
			return out
		}
		out = append(out, "*."+parent)
		host = parent
	}
}
