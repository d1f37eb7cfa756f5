package ca

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Secrets of an authority, in the control plane's namespace.
const (
	// SelfSignedSecret keeps a root of our own.
	SelfSignedSecret = "istio-ca-secret"
	// PlugInSecret is where an operator puts an authority.
	PlugInSecret = "cacerts"

	selfSignedType = "istio.io/ca-root"
)

// OpenSecrets returns the authority of a namespace: the one that an operator has plugged in there, from when there is such a thing,
// or a self-signed one that all replicas share.
func OpenSecrets(ctx context.Context, api kubernetes.Interface, namespace string, options Options) (*Authority, error) {
	return open(ctx, options, func(a *Authority) reload { return a.inSecrets(api, namespace) })
}

// inSecrets does not go back to a root of its own when what was plugged in vanishes: peers would trust nothing that it signs.
func (a *Authority) inSecrets(api kubernetes.Interface, namespace string) reload {
	store, plugIn := SecretStore{API: api, Namespace: namespace}, false
	return func(ctx context.Context, _ *material) (*material, error) {
		secret, err := api.CoreV1().Secrets(namespace).Get(ctx, PlugInSecret, metav1.GetOptions{})
		where := fmt.Sprintf("Secret %s/%s", namespace, PlugInSecret)
		switch {
		case err == nil && (plugIn || hasPlugIn(secret.Data)):
			m, err := plugInMaterial(where, secret.Data, a.options.Now())
			plugIn = plugIn || err == nil
			return m, err
		case err == nil || apierrors.IsNotFound(err) && !plugIn:
			return a.loadSelfSigned(ctx, store)
		}
		return nil, fmt.Errorf("read %s: %w", where, err)
	}
}

// hasPlugIn tells whether there is anything of an authority in a Secret.
func hasPlugIn(data map[string][]byte) bool {
	return slices.ContainsFunc(plugInFiles(), func(name string) bool { return len(data[name]) > 0 })
}

// SecretStore is a Store in the Secret istio-ca-secret, which other replicas may write at the same time.
type SecretStore struct {
	API       kubernetes.Interface
	Namespace string
}

// Load implements Store.
func (s SecretStore) Load(ctx context.Context) (map[string][]byte, error) {
	secret, err := s.API.CoreV1().Secrets(s.Namespace).Get(ctx, SelfSignedSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return map[string][]byte{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", s.Namespace, SelfSignedSecret, err)
	}
	return ours(secret.Data), nil
}

// ours are the files that a self-signed authority has written.
func ours(data map[string][]byte) map[string][]byte {
	files := map[string][]byte{}
	for _, name := range []string{fileCACert, fileCAKey, filePrevious} {
		if len(data[name]) > 0 {
			files[name] = data[name]
		}
	}
	return files
}

// Save implements Store. The version of what is replaced goes along: the API refuses when it is not the latest one.
func (s SecretStore) Save(ctx context.Context, loaded, next map[string][]byte) error {
	secrets := s.API.CoreV1().Secrets(s.Namespace)
	where := fmt.Sprintf("Secret %s/%s", s.Namespace, SelfSignedSecret)
	stored, err := secrets.Get(ctx, SelfSignedSecret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		if len(loaded) > 0 {
			return ErrConflict
		}
		stored = &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: SelfSignedSecret, Namespace: s.Namespace}, Type: selfSignedType, Data: next,
		}
		_, err = secrets.Create(ctx, stored, metav1.CreateOptions{})
	case err != nil:
		return fmt.Errorf("read %s: %w", where, err)
	case !maps.EqualFunc(ours(stored.Data), loaded, bytes.Equal):
		return ErrConflict
	default:
		if stored.Data == nil {
			stored.Data = map[string][]byte{}
		}
		maps.Copy(stored.Data, next)
		_, err = secrets.Update(ctx, stored, metav1.UpdateOptions{})
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return ErrConflict
	case err != nil:
		return fmt.Errorf("write %s: %w", where, err)
	}
	return nil
}
