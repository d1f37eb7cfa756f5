package dump

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// tree is a JSON value: map[string]any, []any, string, json.Number, bool or nil.
type tree = any

// decode reads one JSON value and makes it canonical: fields of messages by their JSON names, and no secret in it.
//
// Proxies write fields as the protos name them (filter_chains), tools as JSON does (filterChains); both are read, the latter is kept.
func decode(data []byte) (tree, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v tree
	if err := d.Decode(&v); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("it is not JSON: %w at byte %d", err, syntax.Offset)
		}
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the JSON value")
	}
	return redact(canonical(v)), nil
}

// Redact returns a JSON document without the secrets in it, and otherwise as it was.
func Redact(data []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v tree
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	return json.MarshalIndent(redact(v), "", "  ")
}

var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)+$`)

// jsonName is the JSON name of a field.
func jsonName(key string) string {
	if !snake.MatchString(key) {
		return key
	}
	var b strings.Builder
	for i, part := range strings.Split(key, "_") {
		if i > 0 {
			part = strings.ToUpper(part[:1]) + part[1:]
		}
		b.WriteString(part)
	}
	return b.String()
}

func canonical(v tree) tree {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = canonical(v[i])
		}
		return v
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, child := range v {
			name := jsonName(key)
			switch {
			case free(name, child, v):
				out[name] = child
			case keyed(name):
				out[name] = values(child)
			default:
				out[name] = canonical(child)
			}
		}
		return out
	}
	return v
}

// values makes the values of a map canonical; its keys are somebody's names.
func values(v tree) tree {
	m, ok := v.(map[string]any)
	if !ok {
		return canonical(v)
	}
	for key, child := range m {
		m[key] = canonical(child)
	}
	return m
}

// keyed tells the fields that are maps.
func keyed(name string) bool {
	switch name {
	case "typedPerFilterConfig", "typedExtensionProtocolOptions", "typedFilterMetadata", "map", "resources":
		return true
	}
	return false
}

// free tells the fields with content of no message: their keys are somebody's names all the way down.
func free(name string, child tree, parent map[string]any) bool {
	switch name {
	case "filterMetadata", "jsonFormat", "staticLayer", "labels":
		return true
	case "metadata": // a node's; that of others is a message with these fields
		m, ok := child.(map[string]any)
		_, a := m["filter_metadata"]
		_, b := m["filterMetadata"]
		_, c := m["typed_filter_metadata"]
		return ok && !a && !b && !c
	case "match": // of an endpoint's metadata, for a transport socket
		_, a := parent["transport_socket"]
		_, b := parent["transportSocket"]
		return a || b
	case "value":
		url, _ := parent["@type"].(string)
		return strings.HasSuffix(url, "TypedStruct") || strings.Contains(url, "google.protobuf.")
	}
	return false
}

const redacted = "[redacted]"

// redact takes what is secret out of a canonical value: whatever a proxy shows, we do not print it.
func redact(v tree) tree {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = redact(v[i])
		}
	case map[string]any:
		for key, child := range v {
			if secret(jsonName(key)) {
				v[key] = hidden(child)
			} else {
				v[key] = redact(child)
			}
		}
	case string:
		if secretText(v) {
			return redacted
		}
	}
	return v
}

// secret tells the fields that are.
func secret(name string) bool {
	switch name {
	case "privateKey", "password", "sessionTicketKeys", "genericSecret", "privateKeyProvider":
		return true
	}
	return false
}

// hidden stands for a secret. Where it is stored is no secret.
func hidden(v tree) tree {
	m, ok := v.(map[string]any)
	if !ok {
		return redacted
	}
	for _, where := range []string{"filename", "environmentVariable"} {
		if text, ok := m[where].(string); ok {
			return map[string]any{where: text}
		}
	}
	return map[string]any{"inlineBytes": base64.StdEncoding.EncodeToString([]byte(redacted))}
}

// secretText finds private keys in places where none is expected.
func secretText(s string) bool {
	const mark = "PRIVATE KEY-----"
	if strings.Contains(s, mark) {
		return true
	}
	// "-----BEGIN" in base64; a chain may have the key at its end.
	if !strings.HasPrefix(s, "LS0tLS1CRUdJTi") {
		return false
	}
	text, err := base64.StdEncoding.DecodeString(s)
	return err == nil && bytes.Contains(text, []byte(mark))
}

// at follows fields; nil when one is missing.
func at(v tree, path ...string) tree {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

func text(v tree, path ...string) string {
	s, _ := at(v, path...).(string)
	return s
}

func flag(v tree, path ...string) bool {
	b, _ := at(v, path...).(bool)
	return b
}

func list(v tree, path ...string) []any {
	l, _ := at(v, path...).([]any)
	return l
}

func object(v tree, path ...string) map[string]any {
	m, _ := at(v, path...).(map[string]any)
	return m
}

// number reads numbers; 64-bit ones are written as strings.
func number(v tree, path ...string) int64 {
	switch n := at(v, path...).(type) {
	case json.Number:
		out, _ := n.Int64()
		return out
	case string:
		out, _ := json.Number(n).Int64()
		return out
	}
	return 0
}

// kindOf is the last part of a message's type.
func kindOf(v tree) string {
	url := text(v, "@type")
	return url[strings.LastIndexAny(url, "./")+1:]
}
