package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// CRDResource is that of CustomResourceDefinitions.
func CRDResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
}

// ApplyCRDs applies all objects in the files, which are CustomResourceDefinitions, and waits until they are established.
func ApplyCRDs(ctx context.Context, config *rest.Config, files ...string) error {
	var documents [][]byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read CRDs: %w", err)
		}
		documents = append(documents, data)
	}
	return ApplyCRDManifests(ctx, config, documents...)
}

// ApplyCRDManifests is ApplyCRDs for what is not in files.
func ApplyCRDManifests(ctx context.Context, config *rest.Config, manifests ...[]byte) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	var names []string
	for _, manifest := range manifests {
		reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifest)))
		for document, err := reader.Read(); err == nil; document, err = reader.Read() {
			name, err := applyCRD(ctx, client, document)
			if err != nil {
				return err
			}
			if name != "" {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if err := established(ctx, client, name); err != nil {
			return err
		}
	}
	return nil
}

func applyCRD(ctx context.Context, client dynamic.Interface, document []byte) (name string, err error) {
	raw, err := yaml.YAMLToJSON(document)
	if err != nil {
		return "", fmt.Errorf("read CRDs: %w", err)
	}
	var header metav1.PartialObjectMetadata
	if err := json.Unmarshal(raw, &header); err != nil {
		return "", fmt.Errorf("read CRDs: %w", err)
	}
	if header.Kind != "CustomResourceDefinition" {
		return "", nil
	}
	force := true
	_, err = client.Resource(CRDResource()).Patch(ctx, header.Name, types.ApplyPatchType, raw, metav1.PatchOptions{FieldManager: "apiserver", Force: &force})
	if err != nil {
		return "", fmt.Errorf("apply CRD %s: %w", header.Name, err)
	}
	return header.Name, nil
}

// established waits until the API server serves the kind.
func established(ctx context.Context, client dynamic.Interface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		crd, err := client.Resource(CRDResource()).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("wait for CRD %s: %w", name, err)
		}
		if raw, err := json.Marshal(crd.Object["status"]); err == nil && strings.Contains(string(raw), `"status":"True","type":"Established"`) {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for CRD %s: %w", name, ctx.Err())
		}
	}
}
