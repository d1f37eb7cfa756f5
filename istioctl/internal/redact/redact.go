// Package redact takes out of texts what must not leave a cluster: private keys, tokens and passwords.
package redact

import (
	"regexp"
	"strings"
)

const mark = "[redacted]"

var (
	// A key may be in one line, with the line ends written as \n, as JSON does; and its end may be cut off.
	privateKey = regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)`)
	// "-----BEGIN" in base64, at each of the three places in a group.
	encoded = regexp.MustCompile(`(?:LS0tLS1CRUdJTi|0tLS0tQkVHSU4|tLS0tLUJFR0lO)[A-Za-z0-9+/=]{32,}`)
	token   = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*`)
	bearer  = regexp.MustCompile(`(?i)\b(bearer|basic) +[A-Za-z0-9._~+/=-]{8,}`)
	// Credentials in an address.
	userinfo = regexp.MustCompile(`(://[^/\s:@"]+:)[^/\s@"]+@`)
	assigned = regexp.MustCompile(`(?i)((?:password|passwd|secret|token|api[_-]?key|private[_-]?key)["']?\s*[=:]\s*["']?)([^\s"',;&]{4,})`)
)

// Text returns a text without secrets. Certificates, which are public, stay where they can be told from keys.
func Text(text string) string {
	text = privateKey.ReplaceAllString(text, mark)
	text = encoded.ReplaceAllStringFunc(text, func(s string) string {
		// A certificate: "-----BEGIN CERTIFICATE" in base64. There may be a key behind it.
		if strings.HasPrefix(s, "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS") && !strings.Contains(s, "UFJJVkFURSBLRV") && !strings.Contains(s, "BSSVZBVEUgS0VZ") && !strings.Contains(s, "QUklWQVRFIEtFW") {
			return s
		}
		return mark
	})
	text = token.ReplaceAllString(text, mark)
	text = bearer.ReplaceAllString(text, "$1 "+mark)
	text = userinfo.ReplaceAllString(text, "${1}"+mark+"@")
	return text
}

// Log is Text for what programs say freely: values that are called passwords or tokens go too.
func Log(text string) string { return assigned.ReplaceAllString(Text(text), "${1}"+mark) }

// Object takes secrets out of an object, in place: values of environment variables that are called so, what was applied last, which
// may have anything, and texts with keys.
func Object(o map[string]any) {
	if metadata, ok := o["metadata"].(map[string]any); ok {
		delete(metadata, "managedFields")
		if annotations, ok := metadata["annotations"].(map[string]any); ok {
			delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		}
	}
	if o["kind"] == "Secret" {
		for _, field := range []string{"data", "stringData"} {
			values, _ := o[field].(map[string]any)
			for key := range values {
				values[key] = mark
			}
		}
	}
	walk(o)
}

var secretName = regexp.MustCompile(`(?i)(password|passwd|secret|token|api_?key|private_?key|credential)`)

func walk(v any) any {
	switch v := v.(type) {
	case map[string]any:
		// An environment variable.
		if name, ok := v["name"].(string); ok && secretName.MatchString(name) {
			if _, has := v["value"].(string); has {
				v["value"] = mark
			}
		}
		for key, child := range v {
			v[key] = walk(child)
		}
	case []any:
		for i := range v {
			v[i] = walk(v[i])
		}
	case string:
		return Text(v)
	}
	return v
}
