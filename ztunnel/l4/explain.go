package l4

// Candidate is an endpoint of a service, as Decide looks at it for one connection.
type Candidate struct {
	Workload *Workload
	// Port is the workload's own for the port that is asked for; HasPort is whether it has one.
	Port    uint16
	HasPort bool
	// Healthy is whether its health, as the service judges it, lets it be used.
	Healthy bool
	// Eligible is whether a connection may go to it. Of those Decide draws among the ones with the highest Rank, in proportion to
	// their Capacity; Chosen is whether this is one of them.
	Eligible, Chosen bool
	Rank             int
}

// Candidates lists the endpoints that Decide chooses from for a connection to a port of the service, by uid.
func Candidates(s *State, c Conn, service *Service, port uint16) []Candidate {
	var out []Candidate
	best := -1
	for _, w := range s.Endpoints(service.ServiceKey).List() {
		e := Candidate{Workload: w, Healthy: healthy(service, w)}
		e.Port, e.HasPort = targetPort(service, w, port)
		_, e.Rank, e.Eligible = eligible(service, c.SourceWorkload, w, port)
		if e.Eligible {
			best = max(best, e.Rank)
		}
		out = append(out, e)
	}
	for i := range out {
		out[i].Chosen = out[i].Eligible && out[i].Rank == best
	}
	return out
}
