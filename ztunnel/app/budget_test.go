package app

import "testing"

func TestLimits(t *testing.T) {
	l, err := Config{MemoryBudget: 64 << 20, MaxConnections: 7}.limits()
	if err != nil || l.Buffers != 32<<20 || l.Connections < 1 || l.Connections > 2048 || l.PerWorkload != 7 {
		t.Errorf("%+v, %v", l, err)
	}
	// Whatever this machine has, it is something.
	if l, err = (Config{}).limits(); err != nil || l.Buffers < 1<<20 || l.Connections < 1 || l.PerWorkload != 0 {
		t.Errorf("%+v, %v", l, err)
	}
}
