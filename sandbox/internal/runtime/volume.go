package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/sandbox/internal/rootfs"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/store"
	"github.com/isthmus-mesh/isthmus/sandbox/internal/token"
)

const (
	// accountDir is where every container finds its service account's token.
	accountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
	// apiAudience of that token.
	apiAudience  = token.Issuer
	tokenSeconds = int64(3607)
	minSeconds   = int64(600)
)

// volumes are a pod's, on the machine's file system.
type volumes struct {
	pod    *pod
	paths  map[string]string // by name; what is absent is not supported
	cancel context.CancelFunc
	// follow are the volumes whose content is that of objects: it changes with them.
	follow []func() error
}

// newVolumes makes all volumes of the pod, and keeps the tokens among them fresh until they are closed.
func (p *pod) newVolumes() (*volumes, error) {
	ctx, cancel := context.WithCancel(p.runtime.ctx)
	v := &volumes{pod: p, paths: map[string]string{}, cancel: cancel}
	for i := range p.object.Spec.Volumes {
		spec := &p.object.Spec.Volumes[i]
		path, err := v.make(ctx, spec)
		if err != nil {
			cancel()
			return nil, fmt.Errorf("volume %s: %w", spec.Name, err)
		}
		v.paths[spec.Name] = path
	}
	account := filepath.Join(p.dir, "volumes", ".account")
	if err := os.MkdirAll(account, 0o755); err != nil {
		cancel()
		return nil, err
	}
	err := errors.Join(os.WriteFile(filepath.Join(account, "namespace"), []byte(p.object.Namespace), 0o644), v.token(ctx, filepath.Join(account, "token"), apiAudience, tokenSeconds))
	if err != nil {
		cancel()
		return nil, err
	}
	return v, nil
}

func (v *volumes) close() { v.cancel() }

// refresh brings the volumes in line with the objects that they show. What cannot be read any more stays as it was.
func (v *volumes) refresh() {
	for _, fill := range v.follow {
		if err := fill(); err != nil {
			v.pod.runtime.cfg.Log.Debug("volume not refreshed", "pod", v.pod.name(), "error", err)
		}
	}
}

// show fills a directory now, and again when objects change.
func (v *volumes) show(fill func() error) error {
	v.follow = append(v.follow, fill)
	return fill()
}

func (v *volumes) make(ctx context.Context, spec *corev1.Volume) (string, error) {
	dir := filepath.Join(v.pod.dir, "volumes", spec.Name)
	if spec.HostPath != nil {
		return v.hostPath(spec.HostPath)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	switch {
	case spec.EmptyDir != nil:
		return dir, os.Chmod(dir, 0o777)
	case spec.ConfigMap != nil:
		return dir, v.show(func() error {
			return v.configMap(dir, spec.ConfigMap.Name, spec.ConfigMap.Items, spec.ConfigMap.Optional)
		})
	case spec.Secret != nil:
		return dir, v.show(func() error { return v.secret(dir, spec.Secret.SecretName, spec.Secret.Items, spec.Secret.Optional) })
	case spec.DownwardAPI != nil:
		return dir, v.show(func() error { return v.downward(dir, spec.DownwardAPI.Items) })
	case spec.Projected != nil:
		for _, source := range spec.Projected.Sources {
			if err := v.projected(ctx, dir, source); err != nil {
				return "", err
			}
		}
		return dir, nil
	}
	return "", errors.New("this kind of volume does not exist in the sandbox: use emptyDir, configMap, secret, downwardAPI or projected")
}

func (v *volumes) projected(ctx context.Context, dir string, source corev1.VolumeProjection) error {
	switch {
	case source.ServiceAccountToken != nil:
		t := source.ServiceAccountToken
		seconds := tokenSeconds
		if t.ExpirationSeconds != nil {
			seconds = max(*t.ExpirationSeconds, minSeconds)
		}
		audience := t.Audience
		if audience == "" {
			audience = apiAudience
		}
		return v.token(ctx, filepath.Join(dir, filepath.Clean("/"+t.Path)), audience, seconds)
	case source.ConfigMap != nil:
		return v.show(func() error {
			return v.configMap(dir, source.ConfigMap.Name, source.ConfigMap.Items, source.ConfigMap.Optional)
		})
	case source.Secret != nil:
		return v.show(func() error { return v.secret(dir, source.Secret.Name, source.Secret.Items, source.Secret.Optional) })
	case source.DownwardAPI != nil:
		return v.show(func() error { return v.downward(dir, source.DownwardAPI.Items) })
	}
	return errors.New("this kind of projection does not exist in the sandbox")
}

// hostPath shows directories of the node to the mesh's own pods.
func (v *volumes) hostPath(source *corev1.HostPathVolumeSource) (string, error) {
	if v.pod.object.Namespace != "istio-system" {
		return "", errors.New("hostPath: only the mesh's own pods see files of the node")
	}
	path, ok := v.pod.node.HostPath(source.Path)
	if !ok {
		path, ok = v.pod.runtime.cfg.HostPath(source.Path)
	}
	if !ok {
		return "", fmt.Errorf("hostPath %s: not a directory that a node of the sandbox has", source.Path)
	}
	if source.Type != nil && *source.Type == corev1.HostPathDirectoryOrCreate {
		return path, os.MkdirAll(path, 0o755)
	}
	return path, nil
}

// token writes a token, and a fresh one before it expires.
func (v *volumes) token(ctx context.Context, path, audience string, seconds int64) error {
	lifetime := time.Duration(seconds) * time.Second
	write := func() error {
		p := v.pod.object
		account := p.Spec.ServiceAccountName
		if account == "" {
			account = "default"
		}
		subject := token.Subject{Namespace: p.Namespace, ServiceAccount: account, Pod: p.Name, PodUID: string(p.UID), Node: p.Spec.NodeName}
		if o, ok := v.pod.runtime.cfg.Store.Get(store.Key{Kind: "ServiceAccount", Namespace: p.Namespace, Name: account}); ok {
			subject.ServiceAccountUID = string(o.GetUID())
		} else {
			return fmt.Errorf("service account %s/%s does not exist", p.Namespace, account)
		}
		text, err := v.pod.runtime.cfg.Signer.Issue(subject, audience, time.Now(), lifetime)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		tmp := path + ".new"
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, path)
	}
	if err := write(); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	go func() {
		ticker := time.NewTicker(lifetime * 8 / 10)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				if err := write(); err != nil {
					v.pod.runtime.cfg.Log.Warn("token of a pod not renewed", "pod", v.pod.name(), "error", err)
				}
			}
		}
	}()
	return nil
}

func (v *volumes) configMap(dir, name string, items []corev1.KeyToPath, optional *bool) error {
	o, ok := v.pod.runtime.cfg.Store.Get(store.Key{Kind: "ConfigMap", Namespace: v.pod.object.Namespace, Name: name})
	cm, isMap := o.(*corev1.ConfigMap)
	if !ok || !isMap {
		if optional != nil && *optional {
			return nil
		}
		return fmt.Errorf("configmap %s does not exist", name)
	}
	data := map[string][]byte{}
	maps.Copy(data, cm.BinaryData)
	for key, value := range cm.Data {
		data[key] = []byte(value)
	}
	return writeItems(dir, data, items)
}

func (v *volumes) secret(dir, name string, items []corev1.KeyToPath, optional *bool) error {
	o, ok := v.pod.runtime.cfg.Store.Get(store.Key{Kind: "Secret", Namespace: v.pod.object.Namespace, Name: name})
	secret, isSecret := o.(*corev1.Secret)
	if !ok || !isSecret {
		if optional != nil && *optional {
			return nil
		}
		return fmt.Errorf("secret %s does not exist", name)
	}
	return writeItems(dir, secretData(secret), items)
}

func secretData(secret *corev1.Secret) map[string][]byte {
	data := maps.Clone(secret.Data)
	if data == nil {
		data = map[string][]byte{}
	}
	for key, value := range secret.StringData {
		data[key] = []byte(value)
	}
	return data
}

func writeItems(dir string, data map[string][]byte, items []corev1.KeyToPath) error {
	if len(items) == 0 {
		for key := range data {
			items = append(items, corev1.KeyToPath{Key: key, Path: key})
		}
	}
	for _, item := range items {
		content, ok := data[item.Key]
		if !ok {
			return fmt.Errorf("key %s does not exist", item.Key)
		}
		path := filepath.Join(dir, filepath.Clean("/"+item.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, content) {
			continue
		}
		// Whoever reads it never sees half of it.
		if err := os.WriteFile(path+".new", content, 0o644); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func (v *volumes) downward(dir string, items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("downwardAPI %s: only fieldRef exists in the sandbox", item.Path)
		}
		value, err := v.field(item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		if err := writeItems(dir, map[string][]byte{"x": []byte(value)}, []corev1.KeyToPath{{Key: "x", Path: item.Path}}); err != nil {
			return err
		}
	}
	return nil
}

// binds are a container's mounts.
func (v *volumes) binds(spec *corev1.Container) ([]rootfs.Bind, error) {
	var out []rootfs.Bind
	hasAccount := false
	for _, m := range spec.VolumeMounts {
		source, ok := v.paths[m.Name]
		if !ok {
			return nil, fmt.Errorf("volumeMounts: there is no volume %s", m.Name)
		}
		if m.SubPath != "" {
			source = filepath.Join(source, filepath.Clean("/"+m.SubPath))
			if _, err := os.Stat(source); errors.Is(err, os.ErrNotExist) {
				if err := os.MkdirAll(source, 0o777); err != nil {
					return nil, err
				}
			}
		}
		hasAccount = hasAccount || m.MountPath == accountDir
		out = append(out, rootfs.Bind{Source: source, Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	automount := v.pod.object.Spec.AutomountServiceAccountToken
	if !hasAccount && (automount == nil || *automount) {
		out = append(out, rootfs.Bind{Source: filepath.Join(v.pod.dir, "volumes", ".account"), Target: accountDir, ReadOnly: true})
	}
	return out, nil
}

// field resolves a fieldRef.
func (v *volumes) field(path string) (string, error) {
	p := v.pod.object
	v.pod.mu.Lock()
	var ips []string
	for _, ip := range v.pod.ips {
		ips = append(ips, ip.String())
	}
	v.pod.mu.Unlock()
	switch path {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP":
		return v.pod.node.Addr4.Addr().String(), nil
	case "status.podIP":
		if len(ips) > 0 {
			return ips[0], nil
		}
		return "", nil
	case "status.podIPs":
		return strings.Join(ips, ","), nil
	case "metadata.labels":
		return keyValues(v.pod.current().Labels), nil
	case "metadata.annotations":
		return keyValues(v.pod.current().Annotations), nil
	}
	for prefix, values := range map[string]map[string]string{"metadata.labels['": p.Labels, "metadata.annotations['": p.Annotations} {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return values[strings.TrimSuffix(rest, "']")], nil
		}
	}
	return "", fmt.Errorf("fieldRef %q is not known", path)
}

func keyValues(values map[string]string) string {
	var lines []string
	for _, pair := range list(values) {
		key, value, _ := strings.Cut(pair, "=")
		lines = append(lines, fmt.Sprintf("%s=%q", key, value))
	}
	return strings.Join(lines, "\n")
}
