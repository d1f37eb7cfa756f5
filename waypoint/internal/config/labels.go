package config

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseLabels reads the file that the downward API writes for metadata.labels: one key="value" a line, the value quoted and
// escaped as in Go. Empty lines are skipped.
func ParseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	for number, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		if strings.TrimSpace(line) == "" {
			continue
		}
		key, quoted, ok := strings.Cut(line, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf(`line %d: want key="value", got %q`, number+1, line)
		}
		value, err := strconv.Unquote(quoted)
		if err != nil || !strings.HasPrefix(quoted, `"`) {
			return nil, fmt.Errorf(`line %d: the value of %q must be quoted, got %q`, number+1, key, quoted)
		}
		labels[key] = value
	}
	return labels, nil
}
