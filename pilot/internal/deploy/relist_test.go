package deploy

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func TestRelist(t *testing.T) {
	l := newRelist()
	a, b := types.NamespacedName{Namespace: "n", Name: "a"}, types.NamespacedName{Namespace: "n", Name: "b"}
	l.add([]types.NamespacedName{a, b})
	l.add([]types.NamespacedName{a})
	<-l.ready
	if got := l.take(); len(got) != 2 {
		t.Errorf("taken: %v", got)
	}
	select {
	case <-l.ready:
		t.Error("ready with nothing to take")
	default:
	}
	l.add([]types.NamespacedName{b})
	<-l.ready
	if got := l.take(); len(got) != 1 || got[0] != b {
		t.Errorf("taken: %v", got)
	}
}
