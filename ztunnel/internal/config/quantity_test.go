package config

import (
	"strings"
	"testing"
)

func TestQuantity(t *testing.T) {
	for value, want := range map[string]int64{
		"1048576": 1 << 20, "512Mi": 512 << 20, "2Gi": 2 << 30, "1G": 1e9, "1024Ki": 1 << 20, "1Ti": 1 << 40,
		"": 0, // not set
	} {
		c, err := Load([]string{"ZTUNNEL_MEMORY_BUDGET=" + value})
		if err != nil || c.MemoryBudget != want {
			t.Errorf("%s: %d, %v; want %d", value, c.MemoryBudget, err, want)
		}
	}
	for _, value := range []string{"0", "1", "-1Gi", "much", "1.5Gi", "1Xi", "9999999999999Ti", "Mi", "1023Ki"} {
		if c, err := Load([]string{"ZTUNNEL_MEMORY_BUDGET=" + value}); err == nil || !strings.Contains(err.Error(), "such as 512Mi") {
			t.Errorf("%s was taken for %d: %v", value, c.MemoryBudget, err)
		}
	}
}
