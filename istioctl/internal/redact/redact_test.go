package redact

import (
	"encoding/base64"
	"strings"
	"testing"
)

const key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIKsecretsecretsecretsecretsecretsecretsecre\n-----END EC PRIVATE KEY-----\n"

const certificate = "-----BEGIN CERTIFICATE-----\nMIIBpublicpublicpublicpublicpublicpublic\n-----END CERTIFICATE-----\n"

func TestText(t *testing.T) {
	t.Parallel()
	encode := base64.StdEncoding.EncodeToString
	for name, secret := range map[string]string{
		"key": "a " + key + " b", "key in JSON": strings.ReplaceAll(key, "\n", `\n`), "cut": key[:60],
		"encoded": encode([]byte(key)), "encoded behind one": encode([]byte("x" + key)), "behind two": encode([]byte("xy" + key)),
		"chain": encode([]byte(certificate + key)), "chain, shifted": encode([]byte(certificate + "\n" + key)), "chain, shifted more": encode([]byte(certificate + "\n\n" + key)),
		"token": "t=eyJhbGciOiJSUzI1NiIsImtpZCI6IkEifQ.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2VjcmV0c2lnbmF0dXJl", "bearer": "Authorization: Bearer secretsecret",
		"user": "http://me:secretsecret@host/",
	} {
		got := Text(secret)
		for _, part := range []string{"secret", "c2VjcmV0", "NlY3Jld", "zZWNyZX", "PRIVATE KEY", "eyJhbGci"} {
			if strings.Contains(got, part) {
				t.Errorf("%s: %q is left in %q", name, part, got)
			}
		}
	}
	for _, harmless := range []string{certificate, encode([]byte(certificate)), "nothing secret", "tokens: 5"} {
		if got := Text(harmless); got != harmless {
			t.Errorf("%q has become %q", harmless, got)
		}
	}
	if got := Log(`login password="hunter22" user=me token: abcdef`); strings.Contains(got, "hunter22") || strings.Contains(got, "abcdef") || !strings.Contains(got, "user=me") {
		t.Errorf("a log line has become %q", got)
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	o := map[string]any{
		"kind": "Pod", "metadata": map[string]any{"managedFields": []any{1}, "annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": "x", "a": key}},
		"spec": map[string]any{"containers": []any{map[string]any{"env": []any{
			map[string]any{"name": "DB_PASSWORD", "value": "hunter2"}, map[string]any{"name": "MODE", "value": "fast"},
		}}}},
	}
	Object(o)
	env := o["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["env"].([]any)
	if env[0].(map[string]any)["value"] != mark || env[1].(map[string]any)["value"] != "fast" {
		t.Errorf("environment: %v", env)
	}
	metadata := o["metadata"].(map[string]any)
	if annotations := metadata["annotations"].(map[string]any); metadata["managedFields"] != nil || len(annotations) != 1 || annotations["a"] != mark+"\n" {
		t.Errorf("metadata: %v", metadata)
	}
	secret := map[string]any{"kind": "Secret", "data": map[string]any{"tls.key": "c2VjcmV0"}}
	Object(secret)
	if secret["data"].(map[string]any)["tls.key"] != mark {
		t.Errorf("secret: %v", secret)
	}
}
