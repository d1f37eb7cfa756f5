package httpbin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
)

// parseMultipart fills Form with the fields and Files with the files.
func (b *requestBody) parseMultipart(raw []byte, boundary string) error {
	if boundary == "" {
		return errors.New("parse multipart form: no boundary in Content-Type")
	}
	parts := multipart.NewReader(bytes.NewReader(raw), boundary)
	for {
		part, err := parts.NextPart()
		if err == io.EOF { //nolint:errorlint // bare at the end; a body cut off is io.EOF wrapped
			return nil
		}
		if err != nil {
			return fmt.Errorf("parse multipart form: %w", err)
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return fmt.Errorf("read part %q of multipart form: %w", part.FormName(), err)
		}
		value := text(content, part.Header.Get("Content-Type"))
		if part.FileName() != "" {
			b.Files[part.FormName()] = append(b.Files[part.FormName()], value)
		} else {
			b.Form.Add(part.FormName(), value)
		}
	}
}
