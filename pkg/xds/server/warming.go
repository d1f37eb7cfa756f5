package server

import (
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// warmingLimit is how long listeners and routes wait for a client to ask for the endpoints of clusters that are new to it.
const warmingLimit = time.Second

// warming are clusters that have been sent and whose endpoints the client has yet to ask for: until it has them it does not use the
// clusters, and routes to them would fail. It is guarded by the turn of a stream.
type warming struct {
	names map[string]struct{}
	until time.Time
	timer *time.Timer
}

// active reports whether listeners and routes have to wait.
func (w *warming) active(now time.Time) bool { return len(w.names) > 0 && now.Before(w.until) }

// begin waits for the names, but not for longer than the limit: wake is called then.
func (w *warming) begin(names []string, now time.Time, wake func()) {
	if len(names) == 0 {
		return
	}
	if !w.active(now) {
		w.end()
		w.names, w.until = map[string]struct{}{}, now.Add(warmingLimit)
		w.timer = time.AfterFunc(warmingLimit+time.Millisecond, wake)
	}
	for _, name := range names {
		w.names[name] = struct{}{}
	}
}

// sent notes that endpoints have been sent.
func (w *warming) sent(name string) {
	if delete(w.names, name); len(w.names) == 0 {
		w.end()
	}
}

// end waits no longer.
func (w *warming) end() {
	w.names = nil
	if w.timer != nil {
		w.timer.Stop()
		w.timer = nil
	}
}

// waits reports whether a type refers to clusters that are warming.
func (st *stream) waits(typeURL string) bool {
	if !releases(typeURL) || len(st.warming.names) == 0 {
		return false
	}
	if st.warming.active(st.server.cfg.Now()) {
		return true
	}
	st.warming.end() // it took too long
	return false
}

// noteSent keeps count of what the client has of clusters and their endpoints. has reports whether it has endpoints already.
func (st *stream) noteSent(typeURL string, names []string, endpoints *topic, has func(name string) bool) {
	if rank(typeURL) > endpointRank {
		return
	}
	for _, name := range names {
		st.renewed.sent(typeURL, name)
		if rank(typeURL) == endpointRank {
			st.warming.sent(name)
		}
	}
	if rank(typeURL) != clusterRank || endpoints == nil {
		return
	}
	var fresh []string
	endpoints.mu.Lock()
	for _, name := range names {
		if _, exists := endpoints.table.Get(name); exists && !has(name) {
			fresh = append(fresh, name)
		}
	}
	endpoints.mu.Unlock()
	st.warming.begin(fresh, st.server.cfg.Now(), func() { st.wakeUp(st.server.cfg.Now()) })
}

func namesOf(entries []*delta.Entry) []string {
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name
	}
	return out
}
