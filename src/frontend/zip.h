// The records of a ZIP archive that stores without compressing, as PyTorch writes them: found
// without copying a byte.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "tensor/tensor.h"

namespace shardwright::frontend {

class ZipArchive {
 public:
  struct Record {
    std::string_view bytes;  // in the archive's memory
    uint32_t crc32 = 0;
  };

  // Reads the central directory (ZIP64 included). `name` is for messages. Throws
  // Error(kBrokenFile).
  ZipArchive(SharedBytes bytes, std::string name);

  // The folder below which every record lies, with its "/"; names below are without it.
  const std::string& root() const { return root_; }
  bool has(std::string_view name) const { return records_.contains(name); }
  const std::map<std::string, Record, std::less<>>& records() const { return records_; }
  // The record's bytes, its CRC-32 checked. Throws Error(kBrokenFile) naming the record if it is
  // missing or damaged.
  std::string_view read(std::string_view name) const;
  const SharedBytes& bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  void add_entry(std::string_view entry_name, const Record& record);

  SharedBytes bytes_;
  std::string name_;
  std::string root_;
  std::map<std::string, Record, std::less<>> records_;
};

}  // namespace shardwright::frontend
