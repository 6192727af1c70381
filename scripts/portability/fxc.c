// Compiles HLSL files with Microsoft's FXC in the way of wgpu's DX12 backend: fxc.exe FILE..
// Prints the refused ones and a count; exit status 1 if there are any. Built by scripts/portability/run, runs under Wine.
#define COBJMACROS
#include <windows.h>
#include <d3dcompiler.h>
#include <stdio.h>
#include <stdlib.h>

static char *whole(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*length + 1);
    if (text && fread(text, 1, *length, file) != *length) *length = 0;
    fclose(file);
    return text;
}

int main(int count, char **paths) {
    int refused = 0;
    for (int i = 1; i < count; i++) {
        size_t length = 0;
        char *text = whole(paths[i], &length);
        ID3DBlob *code = NULL, *messages = NULL;
        HRESULT result = text && length ? D3DCompile(text, length, paths[i], NULL, NULL, "main", "cs_5_1",
                                                     D3DCOMPILE_ENABLE_STRICTNESS, 0, &code, &messages)
                                        : E_FAIL;
        if (FAILED(result)) {
            refused++;
            printf("%s\n  %s\n", paths[i], messages ? (char *)ID3D10Blob_GetBufferPointer(messages) : "cannot be read");
            fflush(stdout);
        }
        if (code) ID3D10Blob_Release(code);
        if (messages) ID3D10Blob_Release(messages);
        free(text);
    }
    printf("FXC: %d modules, %d accepted, %d refused\n", count - 1, count - 1 - refused, refused);
    return refused != 0;
}
