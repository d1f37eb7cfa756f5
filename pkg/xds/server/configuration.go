package server

import (
	"maps"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/pkg/xds/delta"
)

// Configuration is what a client has asked for, of one type, as it has been published last. It has it or is about to get it.
type Configuration struct {
	TypeURL   string
	Resources []Resource // by name; their content is shared and must not be modified
}

// Configurations returns, by type, what the client of a connection is to have now; ok is false when the connection has ended. It waits
// for no client.
func (s *Server) Configurations(connection uint64) (all []Configuration, ok bool) {
	st, topics := s.topicsOf(connection)
	if st == nil {
		return nil, false
	}
	for _, t := range topics {
		if selected, subscribed := t.selected(st); subscribed {
			all = append(all, Configuration{TypeURL: t.typeURL, Resources: selected})
		}
	}
	slices.SortFunc(all, func(a, b Configuration) int {
		if by := rank(a.TypeURL) - rank(b.TypeURL); by != 0 {
			return by
		}
		return strings.Compare(a.TypeURL, b.TypeURL)
	})
	return all, true
}

// topicsOf returns the topics that a connection may be subscribed to.
func (s *Server) topicsOf(connection uint64) (*stream, []*topic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		if st.id != connection {
			continue
		}
		topics := slices.Collect(maps.Values(s.types))
		for _, sc := range s.scopes {
			if _, member := sc.members[st]; member {
				topics = slices.AppendSeq(topics, maps.Values(sc.types))
			}
		}
		return st, topics
	}
	return nil, nil
}

// selected are the resources that a stream has asked for; subscribed is false for one that has not asked for the type.
func (t *topic) selected(st *stream) (out []Resource, subscribed bool) {
	t.mu.Lock()
	r, subscribed := t.readers[st]
	var entries []*delta.Entry
	if subscribed {
		entries = r.Selected(t.table)
	}
	t.mu.Unlock()
	for _, e := range entries {
		out = append(out, e.Resource())
	}
	return out, subscribed
}
