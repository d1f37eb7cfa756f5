package main

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func TestStatOf(t *testing.T) {
	own := statOf(os.Getpid())
	if len(own) <= statStart || own[statParent] != strconv.Itoa(os.Getppid()) {
		t.Fatalf("parent %d: %v", os.Getppid(), own)
	}
	if again := statOf(os.Getpid()); again[statStart] != own[statStart] {
		t.Errorf("started at %s, then at %s", own[statStart], again[statStart])
	}
	time.Sleep(20 * time.Millisecond) // more than a tick
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	later := statOf(child.Process.Pid)
	if len(later) <= statStart || later[statParent] != strconv.Itoa(os.Getpid()) || later[statStart] == own[statStart] {
		t.Errorf("a child that was started later: %v", later)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if gone := statOf(child.Process.Pid); gone != nil {
		t.Errorf("one that has ended: %v", gone)
	}
}
