package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/pkg/kube"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/api"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/cluster"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/manifest"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/merge"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// describe names an object as kubectl does.
func describe(key store.Key) string {
	kind := strings.ToLower(key.Kind)
	if key.Group != "" {
		kind += "." + key.Group
	}
	return kind + "/" + key.Name
}

// apply stores the objects of a manifest; those that name no namespace go to the given one. What is wrong with one keeps
// no other from being applied.
func (s *Supervisor) apply(file, namespace string, data []byte) []api.Result {
	objects, problems := s.decode(file, namespace, data)
	results := problems
	for _, o := range objects {
		key := store.KeyOf(o)
		r := api.Result{Object: describe(key), Namespace: key.Namespace}
		outcome, err := s.applyOne(key, o)
		if r.Outcome = outcome; err != nil {
			r.Outcome, r.Error = "failed", err.Error()
		}
		results = append(results, r)
	}
	return results
}

// decode reads a manifest, and says what is wrong with the objects that are not returned.
func (s *Supervisor) decode(file, namespace string, data []byte) ([]manifest.Object, []api.Result) {
	var results []api.Result
	// What the mesh's own components will refuse is refused here, with the place in the file.
	bad := map[string]bool{}
	_, errs := kube.Decode(file, data)
	for _, e := range errs {
		if e.Warning || e.Kind == "" || isApps(e.Kind) {
			continue
		}
		bad[e.Kind+"/"+e.Name] = true
		results = append(results, api.Result{Object: strings.ToLower(e.Kind) + "/" + e.Name, Namespace: e.Namespace, Outcome: "failed", Error: e.Error()})
	}
	objects, problems := manifest.DecodeInto(namespace, file, data)
	for _, p := range problems {
		var known *manifest.Error
		if errors.As(p, &known) && bad[known.Kind+"/"+known.Name] {
			continue
		}
		results = append(results, api.Result{Object: file, Outcome: "failed", Error: p.Error()})
	}
	var out []manifest.Object
	for _, o := range objects {
		if bad[o.GetObjectKind().GroupVersionKind().Kind+"/"+o.GetName()] {
			continue
		}
		out = append(out, o)
	}
	return out, results
}

// isApps are kinds that only the sandbox itself acts on.
func isApps(kind string) bool {
	switch kind {
	case "Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "ConfigMap", "Secret":
		return true
	}
	return false
}

func (s *Supervisor) applyOne(key store.Key, o manifest.Object) (string, error) {
	if key.Namespace != "" {
		if _, ok := s.store.Get(store.Key{Kind: "Namespace", Name: key.Namespace}); !ok {
			return "", fmt.Errorf("namespace %q does not exist: apply a Namespace first", key.Namespace)
		}
	}
	for _, e := range validate(o) {
		return "", e
	}
	intent, err := merge.Intent(o)
	if err != nil {
		return "", err
	}
	old, exists := s.store.Get(key)
	if !exists {
		if u, ok := o.(*unstructured.Unstructured); ok {
			delete(u.Object, "status") // others' to write
		}
		if err := s.store.Put(o); err != nil {
			return "", err
		}
		s.remember(o.GetUID(), intent)
		return "created", nil
	}
	if reflect.TypeOf(old) != reflect.TypeOf(o) {
		return "", fmt.Errorf("was a %T", old)
	}
	merged, err := merge.Apply(s.lastApplied(old.GetUID()), old, o)
	if err != nil {
		return "", err
	}
	s.remember(old.GetUID(), intent)
	if equality.Semantic.DeepEqual(old, merged) {
		return "unchanged", nil
	}
	return "configured", s.store.Put(merged)
}

// remember keeps what a manifest said of an object, so that the next one can take it back.
func (s *Supervisor) remember(uid types.UID, intent map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intents[uid] = intent
}

func (s *Supervisor) lastApplied(uid types.UID) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.intents[uid]
}

// forget lets go of what was said of objects that are gone.
func (s *Supervisor) forget() {
	alive := map[types.UID]bool{}
	for _, o := range s.store.All() {
		alive[o.GetUID()] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for uid := range s.intents {
		if !alive[uid] {
			delete(s.intents, uid)
		}
	}
}

// validate asks the checks of the mesh for kinds that it reads.
func validate(o manifest.Object) []error {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	data, err := json.Marshal(u)
	if err != nil {
		return []error{err}
	}
	decoded, _ := kube.Decode("", data)
	var out []error
	for _, d := range decoded {
		for _, e := range kube.Validate(d.Object) {
			if !e.Warning {
				out = append(out, e)
			}
		}
	}
	return out
}

// remove deletes the objects of a manifest.
func (s *Supervisor) remove(file, namespace string, data []byte) []api.Result {
	objects, results := s.decode(file, namespace, data)
	for _, o := range objects {
		results = append(results, s.removeOne(store.KeyOf(o)))
	}
	return results
}

// removeOne deletes an object. A pod is ended first; a namespace goes with everything in it.
func (s *Supervisor) removeOne(key store.Key) api.Result {
	r := api.Result{Object: describe(key), Namespace: key.Namespace, Outcome: "deleted"}
	o, ok := s.store.Get(key)
	if !ok {
		r.Outcome, r.Error = "failed", "not found"
		return r
	}
	var err error
	if pod, isPod := o.(*corev1.Pod); isPod {
		err = cluster.StopPod(s.store, pod, time.Now())
	} else {
		_, err = s.store.Delete(key)
	}
	if key.Kind == "Namespace" {
		for _, inside := range s.store.All() {
			if inside.GetNamespace() == key.Name {
				s.removeOne(store.KeyOf(inside))
			}
		}
	}
	if err != nil {
		r.Outcome, r.Error = "failed", err.Error()
	}
	return r
}

// find returns the object of a kind, in any spelling that people use, and a name.
func (s *Supervisor) find(kind, namespace, name string) (manifest.Object, error) {
	for _, o := range s.list(kind, namespace) {
		if o.GetName() == name {
			return o, nil
		}
	}
	return nil, fmt.Errorf("%s %s not found", kind, strings.TrimPrefix(namespace+"/"+name, "/"))
}

// list returns the objects of a kind; an empty namespace is all.
func (s *Supervisor) list(kind, namespace string) []manifest.Object {
	var out []manifest.Object
	for _, o := range s.store.All() {
		gvk := o.GetObjectKind().GroupVersionKind()
		if matchesKind(kind, gvk.Kind, gvk.Group) && (namespace == "" || o.GetNamespace() == namespace || o.GetNamespace() == "") {
			out = append(out, o)
		}
	}
	return out
}

// matchesKind accepts a kind, its plural, its usual short name, with or without the group.
func matchesKind(asked, kind, group string) bool {
	asked = strings.ToLower(asked)
	if full, ok := shortNames()[asked]; ok {
		asked = full
	}
	if name, g, ok := strings.Cut(asked, "."); ok {
		if g != group {
			return false
		}
		asked = name
	}
	lower := strings.ToLower(kind)
	plural := lower + "s"
	switch {
	case strings.HasSuffix(lower, "y") && !strings.HasSuffix(lower, "ay"):
		plural = lower[:len(lower)-1] + "ies"
	case strings.HasSuffix(lower, "s"):
		plural = lower + "es"
	}
	return asked == lower || asked == plural
}

// shortNames are what people type. Of the two Gateways each has its own.
func shortNames() map[string]string {
	return map[string]string{
		"po": "pod", "svc": "service", "ns": "namespace", "no": "node", "sa": "serviceaccount", "deploy": "deployment", "rs": "replicaset",
		"sts": "statefulset", "ds": "daemonset", "cm": "configmap", "vs": "virtualservice", "dr": "destinationrule", "se": "serviceentry",
		"we": "workloadentry", "pa": "peerauthentication", "ap": "authorizationpolicy", "ra": "requestauthentication",
		"gw": "gateway.networking.istio.io", "gtw": "gateway.gateway.networking.k8s.io", "gc": "gatewayclass",
	}
}

// patch applies a JSON merge patch (RFC 7386) to an object.
func (s *Supervisor) patch(kind, namespace, name string, patch []byte) error {
	o, err := s.find(kind, namespace, name)
	if err != nil {
		return err
	}
	var change any
	if err := json.Unmarshal(patch, &change); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	return store.Modify(s.store, store.KeyOf(o), o.GetUID(), func(target manifest.Object) { err = mergeInto(target, change) })
}

// mergeInto changes target; on an error it is left as it was.
func mergeInto(target manifest.Object, change any) error {
	data, err := json.Marshal(target)
	if err != nil {
		return err
	}
	var value any
	if err := json.Unmarshal(data, &value); err != nil {
		return err
	}
	if data, err = json.Marshal(patched(value, change)); err != nil {
		return err
	}
	fresh, ok := reflect.New(reflect.TypeOf(target).Elem()).Interface().(manifest.Object)
	if !ok {
		return fmt.Errorf("cannot patch a %T", target)
	}
	if err := json.Unmarshal(data, fresh); err != nil {
		return fmt.Errorf("patch: %w", err)
	}
	reflect.ValueOf(target).Elem().Set(reflect.ValueOf(fresh).Elem())
	return nil
}

// patched is target changed by a merge patch.
func patched(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for key, value := range changes {
		if value == nil {
			delete(object, key)
		} else {
			object[key] = patched(object[key], value)
		}
	}
	return object
}

// podOf resolves what people name in place of a pod: "deploy/name", "daemonset/name", or a pod.
func (s *Supervisor) podOf(namespace, name string) (string, error) {
	kind, owner, ok := strings.Cut(name, "/")
	if !ok {
		return name, nil
	}
	if matchesKind(kind, "Pod", "") {
		return owner, nil
	}
	if _, err := s.find(kind, namespace, owner); err != nil {
		return "", err
	}
	for _, p := range store.List[*corev1.Pod](s.store) {
		if p.Namespace == namespace && p.DeletionTimestamp == nil && cluster.Ready(p) && s.belongs(p, kind, owner) {
			return p.Name, nil
		}
	}
	return "", fmt.Errorf("%s %s/%s has no pod that is ready", kind, namespace, owner)
}

// belongs follows the owners of a pod.
func (s *Supervisor) belongs(o manifest.Object, kind, name string) bool {
	for _, ref := range o.GetOwnerReferences() {
		if ref.Name == name && matchesKind(kind, ref.Kind, "") {
			return true
		}
		if up, err := s.find(ref.Kind, o.GetNamespace(), ref.Name); err == nil && s.belongs(up, kind, name) {
			return true
		}
	}
	return false
}
