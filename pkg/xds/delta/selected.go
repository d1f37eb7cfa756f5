package delta

import (
	"slices"

	"google.golang.org/protobuf/types/known/anypb"
)

// Resource returns what has been published. Its content is shared and must not be modified.
func (e *Entry) Resource() Resource {
	return Resource{
		Name: e.Name, Version: e.Version, Any: &anypb.Any{TypeUrl: e.typeURL, Value: e.content}, Aliases: e.aliases, Groups: e.groups,
	}
}

// Selected returns what the stream is subscribed to, as the table has it, by name.
func (s *Subscription) Selected(t *Table) []*Entry {
	if s.wildcard {
		return t.All()
	}
	return slices.DeleteFunc(t.All(), func(e *Entry) bool { return !s.wants(e) })
}

// Selected returns what the stream is subscribed to, as the table has it, by name.
func (s *State) Selected(t *Table) []*Entry {
	if s.wildcard() {
		return t.All()
	}
	return slices.DeleteFunc(t.All(), func(e *Entry) bool {
		_, named := slices.BinarySearch(s.names, e.Name)
		return !named
	})
}
