// Package credentials reads the Secrets and ConfigMaps that gateways name, one by one, and asks the API server who may read them.
package credentials

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

// DefaultReview is how long an answer about a right holds.
const DefaultReview = time.Minute

// Target takes what was found.
type Target interface {
	SetLookups(found []registry.Lookup, forget ...credential.Source)
	SetReaders(found []registry.Reader, forget ...registry.Read)
}

// Config of a Controller.
type Config struct {
	API    kubernetes.Interface
	Target Target
	Log    *slog.Logger
	// Review is how long an answer about a right holds; DefaultReview when zero.
	Review time.Duration
}

// Controller looks up what is wanted. Create it with New, drive it with Run.
type Controller struct {
	cfg  Config        // immutable
	wake chan struct{} // holds one token: wanted is another

	mu     sync.Mutex // guards wanted
	wanted registry.Wanted

	// owned by Run
	objects map[credential.Source]following
	reads   map[registry.Read]bool // whether there was an answer
	work    sync.WaitGroup
}

// following is a goroutine that keeps one object current.
type following struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// New returns a controller of which nothing is wanted.
func New(cfg Config) *Controller {
	if cfg.Review == 0 {
		cfg.Review = DefaultReview
	}
	return &Controller{cfg: cfg, wake: make(chan struct{}, 1), objects: map[credential.Source]following{}, reads: map[registry.Read]bool{}}
}

// Want replaces what is looked up. It does not wait.
func (c *Controller) Want(w registry.Wanted) {
	c.mu.Lock()
	c.wanted = w
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run looks things up until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer c.work.Wait()
	defer stop()
	again := time.NewTicker(c.cfg.Review)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.turn(ctx, false)
		case <-again.C:
			c.turn(ctx, true)
		}
	}
}

// turn follows what is wanted now. Answers about rights are asked for anew when all is set.
func (c *Controller) turn(ctx context.Context, all bool) {
	c.mu.Lock()
	wanted := c.wanted
	c.mu.Unlock()
	for o := range wanted.Objects {
		if _, already := c.objects[o]; !already {
			following := following{ended: make(chan struct{})}
			var own context.Context
			own, following.stop = context.WithCancel(ctx)
			c.objects[o] = following
			c.work.Go(func() { defer close(following.ended); c.follow(own, o) })
		}
	}
	for o, following := range c.objects {
		if _, still := wanted.Objects[o]; !still {
			following.stop()
			<-following.ended // it tells nothing any more
			delete(c.objects, o)
			c.cfg.Target.SetLookups(nil, o)
		}
	}
	var answers []registry.Reader
	for r := range wanted.Reads {
		if answered := c.reads[r]; answered && !all {
			continue
		}
		answer := c.review(ctx, r)
		if answer.Problem != "" && c.reads[r] {
			c.cfg.Log.Warn("who may read a Secret cannot be asked; the last answer holds", "secret", r.Namespace+"/"+r.Secret, "account", r.Account, "error", answer.Problem)
			continue
		}
		c.reads[r] = answer.Problem == ""
		answers = append(answers, answer)
	}
	var forget []registry.Read
	for r := range c.reads {
		if _, still := wanted.Reads[r]; !still {
			delete(c.reads, r)
			forget = append(forget, r)
		}
	}
	if len(answers)+len(forget) > 0 && ctx.Err() == nil {
		c.cfg.Target.SetReaders(answers, forget...)
	}
}
