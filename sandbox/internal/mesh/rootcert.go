package mesh

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
)

// RootCerts copies the mesh's root certificates into a ConfigMap of every namespace, where proxies find them.
type RootCerts struct {
	store *store.Store
	file  string
}

// NewRootCerts returns a controller that reads a file which the control plane writes.
func NewRootCerts(s *store.Store, file string) *RootCerts { return &RootCerts{store: s, file: file} }

// Reconcile brings the ConfigMaps in line with the file, and says whether it has written to the store.
func (r *RootCerts) Reconcile() (wrote bool, err error) {
	text, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the control plane has not written it yet
	}
	if err != nil {
		return false, fmt.Errorf("root certificates of the mesh: %w", err)
	}
	var problems []error
	for _, namespace := range store.List[*corev1.Namespace](r.store) {
		key := store.Key{Kind: "ConfigMap", Namespace: namespace.Name, Name: RootCertConfigMap}
		if o, ok := r.store.Get(key); ok {
			if old, isMap := o.(*corev1.ConfigMap); isMap && old.Data[RootCertKey] == string(text) {
				continue
			}
		}
		wrote = true
		problems = append(problems, r.store.Put(&corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: RootCertConfigMap, Labels: map[string]string{"istio.io/config": "true"}},
			Data:       map[string]string{RootCertKey: string(text)},
		}))
	}
	return wrote, errors.Join(problems...)
}
