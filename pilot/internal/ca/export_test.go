package ca

import "time"

// Reread makes the next verification look at the key file.
func Reread(j *JWT) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.looked = time.Time{}
}
