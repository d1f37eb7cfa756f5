package telemetry

import "github.com/isthmus-mesh/isthmus/waypoint/internal/proxy"

// Writers is a Writer that hands records to several.
func Writers(list ...Writer) Writer { return several(list) }

type several []Writer

// Write implements Writer.
func (s several) Write(r *proxy.Record) {
	for _, w := range s {
		w.Write(r)
	}
}
