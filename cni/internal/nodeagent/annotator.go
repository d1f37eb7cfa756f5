package nodeagent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// PatchAnnotator writes annotations by merge patches to an API on a Unix socket: PATCH /pods/{namespace}/{name}.
type PatchAnnotator struct{ client *http.Client }

// NewPatchAnnotator talks to the API on socket.
func NewPatchAnnotator(socket string) *PatchAnnotator {
	return &PatchAnnotator{client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Annotate implements Annotator.
func (p *PatchAnnotator) Annotate(ctx context.Context, namespace, name, key string, value *string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]*string{key: value}}})
	if err != nil {
		return err
	}
	target := "http://api/pods/" + url.PathEscape(namespace) + "/" + url.PathEscape(name)
	request, err := http.NewRequestWithContext(ctx, http.MethodPatch, target, bytes.NewReader(patch))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("patch pod %s/%s: %w", namespace, name, err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10)) // for the error only
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("patch pod %s/%s: %s: %s", namespace, name, response.Status, bytes.TrimSpace(text))
	}
	return nil
}

// Close ends idle connections.
func (p *PatchAnnotator) Close() { p.client.CloseIdleConnections() }
