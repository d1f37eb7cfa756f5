package analysis

import (
	"context"
	"fmt"
)

// Analyzer looks for one family of mistakes.
type Analyzer struct {
	// Name is that by which people choose it, as virtualservice.DestinationHostAnalyzer.
	Name        string
	Description string
	// Codes it may report.
	Codes []Code
	// Run is pure.
	Run func(s *Snapshot) Messages
}

// Run runs analyzers one after the other, until the context ends.
func Run(ctx context.Context, s *Snapshot, analyzers []Analyzer) (Messages, error) {
	var out Messages
	for _, a := range analyzers {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("before analyzer %s: %w", a.Name, err)
		}
		for _, m := range a.guarded(s) {
			if m.Resource == nil || !m.Resource.Assumed {
				out = append(out, m)
			}
		}
	}
	return out.Sorted(), nil
}

// guarded runs the analyzer. What it stumbles over is a finding of its own, so that the others are not lost.
func (a Analyzer) guarded(s *Snapshot) (out Messages) {
	defer func() {
		if p := recover(); p != nil {
			out = nil
			out.Add(InternalError, nil, "", fmt.Sprintf("%s: %v", a.Name, p))
		}
	}()
	return a.Run(s)
}
