package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"

	"github.com/isthmus-mesh/isthmus/tools/kindnode/archive"
)

// Load puts image archives (docker's format) into every node, the nodes at the same time. What a node has already is
// left out.
func (l *Lab) Load(ctx context.Context, name string, archives []string) error {
	list, err := l.provider.ListInternalNodes(name)
	if err != nil {
		return fmt.Errorf("list nodes of %s: %w", name, err)
	}
	if len(list) == 0 {
		return fmt.Errorf("there is no cluster %s", name)
	}
	start := time.Now()
	var loaded atomic.Int64
	results := make([]error, len(list))
	var wg sync.WaitGroup
	for i, n := range list {
		wg.Go(func() {
			for _, a := range archives {
				did, err := loadArchive(ctx, n, a)
				if err != nil {
					results[i] = fmt.Errorf("load %s into %s: %w", a, n.String(), err)
					return
				}
				if did {
					loaded.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(results...); err != nil {
		return err
	}
	l.log.Info("loaded images", "archives", len(archives), "nodes", len(list), "new", loaded.Load(), "took", time.Since(start).Round(time.Second/10))
	return nil
}

func loadArchive(ctx context.Context, n nodes.Node, name string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	images, err := archive.Describe(name)
	if err != nil || hasAll(n, images) {
		return false, err
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, nodeutils.LoadImageArchive(n, f)
}

// hasAll reports whether the node has the images under all their names. A node that cannot say has them not.
func hasAll(n nodes.Node, images []archive.Summary) bool {
	for _, img := range images {
		tags, err := nodeutils.ImageTags(n, img.ID)
		if err != nil {
			return false
		}
		for _, ref := range img.Refs {
			if !tags[ref] {
				return false
			}
		}
	}
	return true
}
