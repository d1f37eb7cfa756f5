package credentials

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/pilot/internal/registry"
	"github.com/isthmus-mesh/isthmus/pilot/translate/credential"
)

// Pauses between attempts to read.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
)

// errEnded is the regular end of a watch.
var errEnded = errors.New("the watch has ended")

// follow keeps what is in an object current until ctx ends. What was read stays while the API server does not answer.
func (c *Controller) follow(ctx context.Context, o credential.Source) {
	known, pause := false, firstPause
	for ctx.Err() == nil {
		begun := time.Now()
		err := c.readAndWatch(ctx, o, func(l registry.Lookup) {
			known, pause = true, firstPause
			c.cfg.Target.SetLookups([]registry.Lookup{l})
		})
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errEnded) && time.Since(begun) >= firstPause:
			continue
		case !known, apierrors.IsForbidden(err):
			known = false
			c.cfg.Target.SetLookups([]registry.Lookup{{Source: o, Problem: problem(err)}})
		}
		c.cfg.Log.Warn("a credential of gateways cannot be read", "object", o.String(), "error", problem(err), "retry_in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(2*pause, maxPause)
		}
	}
}

func problem(err error) string {
	if apierrors.IsForbidden(err) {
		return "the control plane may not: set gatewayCredentials.allNamespaces of the chart istiod, or bind the ClusterRole istiod-gateway-credentials-… of this control plane to its service account in that namespace (kubectl get clusterroles | grep istiod-gateway-credentials)"
	}
	return err.Error()
}

// readAndWatch returns when the watch ends, or with the reason why there is none.
func (c *Controller) readAndWatch(ctx context.Context, o credential.Source, found func(registry.Lookup)) error {
	only := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, o.Name).String()}
	version, err := c.list(ctx, o, only, found)
	if err != nil {
		return err
	}
	only.ResourceVersion = version
	var w watch.Interface
	if o.Kind == credential.ConfigMap {
		w, err = c.cfg.API.CoreV1().ConfigMaps(o.Namespace).Watch(ctx, only)
	} else {
		w, err = c.cfg.API.CoreV1().Secrets(o.Namespace).Watch(ctx, only)
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", o, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-w.ResultChan():
			switch {
			case !open:
				return errEnded
			case e.Type == watch.Error:
				return fmt.Errorf("watch %s: %w", o, apierrors.FromObject(e.Object))
			case nameOf(e.Object) != o.Name: // a bookmark
			case e.Type == watch.Deleted:
				found(registry.Lookup{Source: o})
			case e.Type == watch.Added, e.Type == watch.Modified:
				found(registry.Lookup{Source: o, Data: content(e.Object)})
			}
		}
	}
}

// list reads the object, and returns from which version on to watch it.
func (c *Controller) list(ctx context.Context, o credential.Source, only metav1.ListOptions, found func(registry.Lookup)) (string, error) {
	var all interface {
		runtime.Object
		metav1.ListInterface
	}
	var err error
	if o.Kind == credential.ConfigMap {
		all, err = c.cfg.API.CoreV1().ConfigMaps(o.Namespace).List(ctx, only)
	} else {
		all, err = c.cfg.API.CoreV1().Secrets(o.Namespace).List(ctx, only)
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", o, err)
	}
	out := registry.Lookup{Source: o}
	err = meta.EachListItem(all, func(item runtime.Object) error {
		if nameOf(item) == o.Name {
			out.Data = content(item)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("read %s: %w", o, err)
	}
	found(out)
	return all.GetResourceVersion(), nil
}

func nameOf(o runtime.Object) string {
	if m, ok := o.(metav1.Object); ok {
		return m.GetName()
	}
	return ""
}

func content(o runtime.Object) map[string][]byte {
	switch o := o.(type) {
	case *corev1.Secret:
		return registry.SecretData(o)
	case *corev1.ConfigMap:
		return registry.ConfigMapData(o)
	}
	return nil
}
